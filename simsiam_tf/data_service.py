"""python -m simsiam_tf.data_service --role=…: the processes that make views for --data_service."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys
import threading

from simsiam_tf import config
from simsiam_tf.command_line import cli
from simsiam_tf.config import option
from simsiam_tf.runtime.errors import UserError

ABOUT = """Makes views on other machines. Start one dispatcher and any number of data workers, then train with
the dispatcher's address:

    python -m simsiam_tf.data_service --role=dispatcher --port=5050 --work_dir=/shared/dispatcher
    python -m simsiam_tf.data_service --role=worker --dispatcher=HOST:5050        # on every machine
    python -m simsiam_tf.pretrain --data_service=HOST:5050 …

Data workers may come and go while a run goes on. They read image files themselves, at the same paths as the
run, such as those of folder:PATH. Several runs may share a service. SIGTERM or Ctrl-C ends a dispatcher or
worker, with exit status 0.

Everybody who can connect to the service can read and write the files of the user who started it. Keep others
out by a firewall (sudo ufw allow from 10.0.0.0/24 to any port 5050 proto tcp), and serve only one address by
--host=10.0.0.5 or --host=localhost. Any other name, the default included, serves every interface."""


@dataclasses.dataclass(frozen=True)
class ServiceConfig(config.Config):
    """Options of a process of a data service."""

    role: str = option("", "role of this process", "Data service", choices=("dispatcher", "worker"))
    port: int = option(0, "port to listen on; 0: any free port")
    host: str | None = option(
        None,
        "address by which others reach this machine: by default its name, or localhost where the dispatcher "
        "is at localhost. With an IP address or localhost only that is served, with a name every interface",
    )
    dispatcher: str | None = option(None, "for a worker: HOST:PORT of its dispatcher")
    work_dir: str | None = option(
        None, "for a dispatcher: folder for its state, from which it continues after a restart"
    )

    def validate(self) -> ServiceConfig:
        """Returns the configuration. Raises UserError for the first invalid value."""
        super().validate()
        config.check_address("dispatcher", self.dispatcher)
        if not 0 <= self.port < 2**16:
            raise UserError(f"--port={self.port}: must be from 0 to 65535.")
        if (self.role == "worker") != (self.dispatcher is not None):
            raise UserError("--dispatcher=HOST:PORT belongs to --role=worker, which needs it.")
        if self.role == "worker" and self.work_dir:
            raise UserError(f"--work_dir={self.work_dir} has no effect with --role=worker. Leave it out.")
        return self


def call(config: ServiceConfig) -> int:
    """Serves until SIGTERM or SIGINT."""
    with cli.heavy_imports():
        import tensorflow as tf

        from simsiam_tf.data.service import client
        from simsiam_tf.distributed import ports
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    local = (config.dispatcher or "").rpartition(":")[0] in ("localhost", "127.0.0.1", "[::1]")
    host = config.host or ("localhost" if local else socket.gethostname())
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    while config.dispatcher and (reason := client.connection_error(config.dispatcher)):
        print(f"waiting for the dispatcher at {config.dispatcher} ({reason})", flush=True)
        if ended.wait(5):
            return 0
    service = tf.data.experimental.service
    try:
        socket.create_server(("", config.port)).close()  # fails where TensorFlow would share a port
        if config.role == "dispatcher":
            state = {"work_dir": config.work_dir, "fault_tolerant_mode": True} if config.work_dir else {}
            server = service.DispatchServer(service.DispatcherConfig(port=config.port, **state))
        else:
            address = f"{host}:{config.port or '%port%'}"
            server = service.WorkerServer(service.WorkerConfig(config.dispatcher, address, config.port))
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(f"--port={config.port}: cannot serve: {error}") from error
    port = server._address.rpartition(":")[2]
    alone = ports.restrict_port(int(port), host)
    reach = "there alone" if alone else "on every interface, for whoever reaches it"
    print(f"{config.role}, {reach}, listens at {host}:{port}", flush=True)
    ended.wait()
    os._exit(0)  # stopping a server takes seconds, and there is nothing to save


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(ServiceConfig, call, "simsiam_tf.data_service", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
