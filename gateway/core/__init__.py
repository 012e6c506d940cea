"""Pure decisions of the gateway.

Nothing here imports asyncio, aiohttp, a clock, randomness or the environment: `now`, `jitter` and
tokens are arguments, so that every rule can be tested as a function.
"""
