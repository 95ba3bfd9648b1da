"""How busy a GPU is while something runs, as nvidia-smi tells."""

import shutil
import subprocess
from typing import Self

import numpy as np
import torch


class BusyMeter:
    """Samples how busy a GPU's engines are while it is entered: `decoder` and `gpu`, in percent; NaN where nobody tells
    (`is_told`)."""

    def __init__(self, device: torch.device) -> None:
        self.decoder = self.gpu = float("nan")
        self._command = None
        if device.type == "cuda" and shutil.which("nvidia-smi"):
            query = "--query-gpu=utilization.decoder,utilization.gpu"
            identity = f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}"
            self._command = ["nvidia-smi", identity, query, "--format=csv,noheader,nounits", "--loop-ms=200"]

    @property
    def is_told(self) -> bool:
        """Whether there is somebody to ask."""
        return self._command is not None

    def __enter__(self) -> Self:
        self._process = self._command and subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process:
            self._process.terminate()
            lines = self._process.communicate()[0].splitlines()
            # The last line may be torn, the first tells of the time before.
            samples = [line.split(",") for line in lines[1:-1] if line.count(",") == 1 and "N/A" not in line]
            if samples:
                self.decoder, self.gpu = np.mean(np.array(samples, np.float64), axis=0).tolist()
