"""`make chaos`: is anything lost when receivers misbehave and processes are killed with -9?"""
