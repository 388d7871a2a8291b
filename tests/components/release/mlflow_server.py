"""A real MLflow server on loopback with artifacts through it, one worker, no job runner; it can be killed and started again."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from cryptography.fernet import Fernet

from tests.serving.servers import free_port, until


@dataclass
class MlflowServer:
    """Its store and its artifacts lie under `folder`. Half a minute to start."""

    folder: Path
    store: str = ""  # where clients themselves put artifacts; empty: through the server, under its folder
    port: int = field(default_factory=free_port)
    secret: str = field(default_factory=lambda: Fernet.generate_key().decode())  # of webhooks
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Until it answers; nothing where it does already."""
        if self.process is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        line = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        kept = ["--default-artifact-root", self.store, "--no-serve-artifacts"] if self.store else []
        line += kept or ["--artifacts-destination", str(self.folder / "artifacts")]
        line += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        more = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
        more |= {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}  # to a receiver on loopback
        more |= {"MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": self.secret}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(line, env={**os.environ, **more}, stdout=log, stderr=log, start_new_session=True)
        until(self._healthy, 300)

    def kill(self) -> None:
        """All of it, at once: uvicorn's worker is a child of the process that was started."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, number)
            self.process.wait(30)
            self.process = None

    def _healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        try:
            with urlopen(f"{self.address}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except (URLError, OSError):
            return False
