"""The cluster's one background task of our own: keep DNS in step with Services, and free volumes on offer."""

import signal
import sys
import time
from pathlib import Path

from _cluster import components, dns, volumes
from _cluster.api import Api
from _cluster.errors import ClusterError
from _cluster.home import Home
from _cluster.processes import Command, Processes

NAME = "housekeeping"
_SECONDS = 0.5


def command() -> Command:
    """This same program, run with the hidden command that leads to `run`."""
    return Command(NAME, (sys.executable, str(Path(sys.argv[0]).resolve()), "_housekeeping"))


def run(home: Home) -> None:
    """Look again and again, until the process is told to end; an API server that is away for a while is borne."""
    api, complaint = Api.of(home), ""
    while True:
        try:
            update_names(api, home)
            volumes.tend(api, home)
            complaint = ""
        except ClusterError as error:
            if str(error) != complaint:
                complaint = str(error)
                print(complaint, flush=True)
        time.sleep(_SECONDS)


def update_names(api: Api, home: Home) -> None:
    """Write the hosts file anew when Services have changed, and have the DNS server read it."""
    text = dns.hosts(api.items("/api/v1/services"), api.items("/api/v1/endpoints"))
    if home.hosts.exists() and home.hosts.read_text() == text:
        return
    fresh = home.hosts.with_name(".fresh")
    fresh.write_text(text)
    fresh.rename(home.hosts)
    Processes(home).signal(components.dns(home).name, signal.SIGHUP)
