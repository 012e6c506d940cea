"""What the server's errors mean to whoever called a store."""

from __future__ import annotations

from gateway.core.error import StoreUnavailable

# The first word of an error reply -> how to mend it. They are conditions of the server; any other
# error is a defect of a script or its values, and is raised as it is.
_REMEDIES = {
    "LOADING": "it is reading its data back: repeat the request in a moment",
    "BUSY": "a script runs for too long there: look at its slow log",
    "READONLY": "redis.url names a replica: name the primary, or set redis.cluster",
    "OOM": "give it more memory; its maxmemory-policy must be noeviction",
    "MISCONF": "free space on its volume, it cannot write its data down",
    "MASTERDOWN": "its link to the primary is down: name the primary",
    "NOREPLICAS": "too few replicas are in step: mend them",
    "CLUSTERDOWN": "mend the cluster: a part of its slots has no primary",
    "TRYAGAIN": "slots are on the move: repeat the request in a moment",
    "MOVED": "set redis.cluster: true, it is a node of a cluster",
    "ASK": "slots are on the move: repeat the request in a moment",
    "CROSSSLOT": "set redis.cluster: true, it is a node of a cluster",
    "NOAUTH": "give redis.url the user name and password",
    "WRONGPASS": "correct the user name and password in redis.url",
    "NOPERM": "allow the user of redis.url every command on the gateway's keys and channels",
    "EXECABORT": "see the cause",
    "UNKILLABLE": "a script runs for too long there: look at its slow log",
}


class Lost(Exception):
    """There is no connection, or its reply did not come."""


class ReplyError(Exception):
    """An error that the server replied."""

    @property
    def code(self) -> str:
        """Its first word, such as MOVED."""
        return str(self).partition(" ")[0]


def translate(error: ReplyError, where: str) -> Exception:
    """`StoreUnavailable` for a condition of the server; a defect stays what it is."""
    remedy = _REMEDIES.get(error.code)
    if remedy is None and not str(error).startswith("ERR max number of clients"):
        return error
    return unavailable(where, str(error), remedy or "raise its maxclients")


def unavailable(where: str, cause: str, remedy: str) -> StoreUnavailable:
    """The one sentence: what, where, how to mend it. `where` has no password."""
    return StoreUnavailable(f"The Redis at {where} did not take the operation ({cause}): {remedy}.")
