# docker build -t exporter . && docker run --rm -v "$PWD/out:/out" exporter
FROM python:3.11-slim
WORKDIR /exporter
COPY requirements requirements
RUN pip install -r requirements/run.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY exporter exporter
RUN pip install --no-deps .
WORKDIR /out
ENTRYPOINT ["exporter"]
CMD ["demo", "-o", "/out/exporter-demo"]
