"""Prints the logits of an ONNX model on images: logits.py MODEL PIXELS, where PIXELS holds f32 (little endian) of the
shape [n, 3, 32, 32] in 0..1. One JSON object: the input's and the output's name, and the rows of logits."""

import json
import sys

import numpy
import onnxruntime

model, pixels = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
(given,), (answer,) = session.get_inputs(), session.get_outputs()
images = numpy.fromfile(pixels, dtype="<f4").reshape(-1, 3, 32, 32)
(logits,) = session.run([answer.name], {given.name: images})
metadata = session.get_modelmeta().custom_metadata_map
print(json.dumps({"input": given.name, "output": answer.name, "metadata": metadata, "logits": logits.tolist()}))
