// Read remap.json in JavaScript: which class of the original does an output of the pruned model mean?
//
// In a page or in Node, with the pruned .onnx file and onnxruntime-web:
//
//   const session = await ort.InferenceSession.create("pruned.fp32.onnx");
//   const head = parseRemap(await (await fetch("remap.json")).text());
//   const results = await session.run({ [session.inputNames[0]]: pixels });
//   const best = bestUnit(head, results[head.output].data);
//   console.log(best.original, best.label, best.score);

/** The table of the first head in the text of remap.json. */
export function parseRemap(text) {
  const remap = JSON.parse(text);
  if (remap.schema !== "exporter/remap/1") {
    throw new Error(`this is not a remap: its schema is ${remap.schema}`);
  }
  return remap.heads[0];
}

/**
 * The kept unit with the highest score. `original` is its index in the original model, or the list
 * of the indices that were merged into it; `label` is null if the model has no labels.
 */
export function bestUnit(head, scores) {
  if (scores.length !== head.new_units) {
    throw new Error(`the remap has ${head.new_units} units, and the output has ${scores.length}`);
  }
  const kept = new Set(head.kept); // with --mode mask or zero, removed units have a position too
  let best = -1;
  head.new_to_old.forEach((original, index) => {
    const counts = [original].flat().every((unit) => kept.has(unit));
    if (counts && (best < 0 || scores[index] > scores[best])) best = index;
  });
  return {
    original: head.new_to_old[best],
    label: head.labels ? head.labels[best] : null,
    score: scores[best],
  };
}
