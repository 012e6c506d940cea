"""Several processes on one machine: the parent that starts them, and what it says of them all.

A *worker* is a gateway process beside others; a *slot* is the place of one, 0 to `workers` - 1,
with a listening socket of its own. A slot's *member* is the process that has it now: a restart puts
another in its place. `supervisor` starts and replaces members, `renewal` all of them one by one,
`assignment` says who accepts a slot's connections. `overview` is the health of them all,
`exposition` their metrics, `desk` what the admin listener passes on to one of them. `place` is what
a member is told when it starts, `lifeline` how either side learns that the other is gone.
"""
