"""Programs in place of ssh, adb and benchmark_model, which run everything on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Options as ssh has them; the first other word is the host, and the rest the command.
SSH = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in
    -o|-p|-F) echo "$1 $2" >> "$0.log"; shift 2;;
    -*) shift;;
    *) break;;
  esac
done
host="$1"; shift
case "$host" in
  *unreachable*) echo "ssh: connect to host $host port 22: Connection refused" >&2; exit 255;;
  *talkative*) echo "Welcome to $host";;
esac
exec sh -c "$*"
"""

# The shell command is run here, with FOLDER in place of the folder of Android.
ADB = """#!/bin/sh
[ "$1" = -s ] && serial="$2" && shift 2
echo "$serial $*" >> "$0.log"
case "$serial" in gone) echo "adb: device 'gone' not found" >&2; exit 1;; esac
case "$1" in
  shell) shift; exec sh -c "$(echo "$*" | sed "s#/data/local/tmp#FOLDER#g")";;
  push) [ "$serial" = full ] && [ "${2%.tflite}" != "$2" ] && \
    echo "adb: error: failed to copy: No space left on device" >&2 && exit 1
    exec cp "$2" "$3";;
esac
"""

# Prints what benchmark_model of TensorFlow 2.17 prints; the first file takes twice as long.
BENCHMARK_MODEL = """#!/bin/sh
for word in "$@"; do
  case "$word" in --graph=*/0.tflite) us=200;; --graph=*) us=100;; esac
done
echo "$@" >> LOG
echo "INFO: Loaded model"
echo "INFO: Inference timings in us: Init: 5685, First inference: 1853, " \
 "Warmup (avg): 144.3, Inference (avg): $us.5"
echo "INFO: Memory footprint delta from the start of the tool (MB): init=6.5 overall=$us.25"
"""


def program(path: Path, text: str) -> Path:
    """Write a program."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def fake_ssh(folder: Path) -> Path:
    """A program `ssh` that runs commands here."""
    return program(folder / "ssh", SSH)


def fake_adb(folder: Path) -> Path:
    """A program `adb` whose device is the folder `android`."""
    (folder / "android").mkdir()
    program(folder / "getprop", "#!/bin/sh\necho Phone 7\n")
    return program(folder / "adb", ADB.replace("FOLDER", str(folder / "android")))


def benchmark_model(folder: Path) -> Path:
    """A program like benchmark_model; its arguments are in `calls`."""
    return program(
        folder / "benchmark_model", BENCHMARK_MODEL.replace("LOG", str(folder / "calls"))
    )


def path_with(folder: Path) -> str:
    """PATH with the folder before others."""
    return os.pathsep.join((str(folder), os.environ["PATH"]))


def address(host: str = "greenhouse", python: Path | str = sys.executable) -> str:
    """An address with the Python of these tests."""
    return f"ssh://pi@{host}{python}"
