"""The progress of a training: a bar on a terminal, a line per epoch elsewhere, both on standard error."""

import sys
import time
from contextlib import redirect_stdout
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from zoo.screen import note, shows_bars


class ProgressBar(TQDMProgressBar):
    """Lightning's bar on standard error, with the remaining time of the whole run; a line per epoch without a terminal.

    Nothing is shown if `zoo.screen.is_quiet`.
    """

    def __init__(self) -> None:
        super().__init__(leave=False)
        self.moves = shows_bars()
        if not self.moves:
            self.disable()
        self._start: tuple[float, int] | None = None
        self._epoch_start = time.monotonic()

    def setup(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Leave the lines to the first process."""
        super().setup(trainer, *args, **kwargs)
        self._writes_lines = trainer.is_global_zero and not self.moves

    def init_train_tqdm(self) -> Tqdm:
        """Return the bar of the epochs."""
        with redirect_stdout(sys.stderr):  # Lightning's bars go to what is standard output when they are made
            return super().init_train_tqdm()

    def init_validation_tqdm(self) -> Tqdm:
        """Return the bar of a validation."""
        with redirect_stdout(sys.stderr):
            return super().init_validation_tqdm()

    def init_sanity_tqdm(self) -> Tqdm:
        """Return the bar of the validation before the training."""
        with redirect_stdout(sys.stderr):
            return super().init_sanity_tqdm()

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Begin the bar anew, and the time of the epoch."""
        super().on_train_epoch_start(trainer, *args)
        self._epoch_start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch's last figures, validation included."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._writes_lines:
            note(self._line(trainer, self.get_metrics(trainer, pl_module)))

    def _line(self, trainer: pl.Trainer, metrics: dict[str, Any]) -> str:
        left = metrics.pop("left", "")
        of = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        figures = [f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, int | float)]
        figures.append(f"{time.monotonic() - self._epoch_start:.0f} s")
        return f"epoch {trainer.current_epoch + 1}{of}: " + ", ".join(figures + [f"{left} left"] * bool(left))

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Record the start of the first step of this session."""
        if self._start is None:
            self._start = time.monotonic(), trainer.global_step

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the logged metrics and ``left``, the time until the last step ends."""
        metrics = dict(super().get_metrics(trainer, pl_module))
        metrics.pop("v_num", None)
        if self._start is not None and trainer.global_step > self._start[1]:
            pace = (time.monotonic() - self._start[0]) / (trainer.global_step - self._start[1])
            left = max(0, round(pace * (trainer.estimated_stepping_batches - trainer.global_step)))
            metrics["left"] = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        return metrics

    def on_exception(self, *args: Any) -> None:
        """End the bars' lines, so that the message of the exception is on its own line."""
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                bar.close()
