#!/usr/bin/env python3
"""Times training steps of PyTorch and of twin-trainer in turns; see scripts/compare-pytorch."""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import torch
import torch.nn.functional as F

FIXTURES = Path(__file__).parent.parent / "tests/fixtures/learning/generate.py"
WARM_UP = 3


def zoo():
    """The networks as the fixtures' generator defines them, with 100 classes."""
    spec = importlib.util.spec_from_file_location("generate", FIXTURES)
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    generate.CLASSES = 100
    resnets = {f"resnet{6 * n + 2}x4": (lambda n=n: generate.ResNet(n)) for n in (1, 2, 4, 5)}
    return {"vgg8": generate.Vgg8, **resnets}


def theirs(make, precision, options):
    net = make().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = torch.randn(options.batch, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(100, (options.batch,))
    seconds = []
    for step in range(WARM_UP + options.steps):
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(net(images)[1].float(), labels)
        loss.backward()
        optimiser.step()
        loss.item()
        if step >= WARM_UP:
            seconds.append(time.perf_counter() - start)
    return options.batch / statistics.median(seconds)


def ours(network, precision, options):
    command = [options.trainer, "--threads", str(options.threads), "--device", "cpu", "--precision", precision]
    command += ["bench", "--arch", network, "--batch", str(options.batch), "--steps", str(options.steps)]
    environment = {**os.environ, "LD_LIBRARY_PATH": options.libraries}
    report = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    report = json.loads(report)
    return report["images_per_s"], report["peak_memory_bytes"]


def main():
    networks = zoo()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--libraries", required=True, help="LD_LIBRARY_PATH of the trainer")
    parser.add_argument("--networks", default=",".join(networks))
    parser.add_argument("--precisions", default="f32,bf16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="turns; the best median of each side counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"PyTorch {torch.__version__}, batch {options.batch}, {options.threads} thread(s), images/s\n")
    print("| network | format | Twinstill | PyTorch | ratio | peak memory (MB) |\n| --- | --- | --- | --- | --- | --- |")
    for network in options.networks.split(","):
        for precision in options.precisions.split(","):
            speed, reference, memory = 0.0, 0.0, 0
            for _ in range(options.rounds):
                mine, memory = ours(network, precision, options)
                speed = max(speed, mine)
                reference = max(reference, theirs(networks[network], precision, options))
            numbers = f"{speed:.0f} | {reference:.0f} | {speed / reference:.2f} | {memory / 1e6:.0f}"
            print(f"| {network} | {precision} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
