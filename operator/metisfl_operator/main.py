"""What kopf calls. Decorators only: every handler says which federation to look at, and nothing else.

kopf run -m metisfl_operator.main --standalone --all-namespaces --liveness=http://0.0.0.0:8080/healthz
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import kopf

from metisfl.spec import API_GROUP, API_VERSION, PLURAL
from metisfl_operator.names import FIELD_MANAGER, LABEL_FEDERATION, LABEL_MANAGED_BY
from metisfl_operator.pokes import Key
from metisfl_operator.reconcile.reconciler import InvalidFederationError
from metisfl_operator.resync import STALE_SECONDS, Seen, seen
from metisfl_operator.runtime import Runtime
from metisfl_operator.settings import Settings
from metisfl_operator.storage import SpecDigestStorage

FEDERATIONS = (API_GROUP, API_VERSION, PLURAL)
CHILDREN = (
    ("apps", "v1", "statefulsets"),
    ("", "v1", "services"),
    ("", "v1", "configmaps"),
    ("", "v1", "persistentvolumeclaims"),
    ("", "v1", "pods"),
)
OURS = {LABEL_MANAGED_BY: FIELD_MANAGER}
RETRY_SECONDS = 10.0


@kopf.on.login()
def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """By the pod's service account, or by the kubeconfig where there is none; never by whatever is installed."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


# What these say of each event and request would bury what the reconciler says of each change.
CHATTY_LOGGERS = ("kopf.objects", "kopf.activities.probe", "aiohttp.access", "httpx")


@kopf.on.startup(errors=kopf.ErrorsMode.PERMANENT)
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, federations: kopf.Index, **_: Any) -> None:
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    chosen = Settings.from_environment(os.environ)
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=API_GROUP)
    settings.persistence.diffbase_storage = SpecDigestStorage()
    settings.watching.server_timeout = 240
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 10
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.posting.enabled = False  # the reconciler tells what happened, once, in words of its own
    settings.scanning.disabled = bool(chosen.namespaces)  # only the whole cluster lets itself be looked over
    for child in CHILDREN:
        settings.watching.label_selectors[child] = f"{LABEL_MANAGED_BY}={FIELD_MANAGER}"
    memo.runtime = Runtime.create(chosen, lambda: _latest(federations))
    memo.runtime.start()


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    if "runtime" in memo:
        await memo.runtime.stop()


@kopf.on.probe(id="watchLagSeconds")
def watch_lag(memo: kopf.Memo, **_: Any) -> float:
    """An operator that no longer hears of changes looks healthy in every other way."""
    lag: float = memo.runtime.resync.lag_seconds()
    if lag > STALE_SECONDS:
        raise kopf.PermanentError(f"the watch has been behind the API server for {lag:.0f} seconds")
    return lag


@kopf.index(*FEDERATIONS)
def federations(namespace: str, name: str, body: kopf.Body, **_: Any) -> Mapping[Key, Seen]:
    return {(namespace, name): seen(body)}


@kopf.on.resume(*FEDERATIONS)
@kopf.on.create(*FEDERATIONS)
@kopf.on.update(*FEDERATIONS, field="spec")
async def spec_changed(namespace: str, name: str, memo: kopf.Memo, **_: Any) -> None:
    try:
        await memo.runtime.pokes.run((namespace, name))
    except InvalidFederationError as error:
        raise kopf.PermanentError(str(error)) from error
    except Exception as error:
        raise kopf.TemporaryError(str(error), delay=RETRY_SECONDS) from error


async def child_changed(namespace: str, labels: Mapping[str, str], memo: kopf.Memo, **_: Any) -> None:
    """Asynchronous, because kopf runs other functions in threads and pokes belong to the event loop."""
    if LABEL_FEDERATION in labels:
        memo.runtime.pokes.poke((namespace, labels[LABEL_FEDERATION]))


for _child in CHILDREN:
    kopf.on.event(*_child, labels=OURS)(child_changed)


def _latest(index: kopf.Index) -> dict[Key, Seen]:
    return {key: next(iter(values)) for key, values in index.items() if len(values)}
