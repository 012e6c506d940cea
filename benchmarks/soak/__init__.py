"""`make soak`: after half an hour of everything at once, is anything lost, or left behind?"""
