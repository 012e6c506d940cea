"""Changes to what is stored already: Convex's documents and the gateway's own layouts.

`validator` judges values and types as Convex does, `contract` is what `convex/` offers, `compare`
says what a deployment would break, `convex` runs migrations there, `layout` those of the gateway's
own file.
"""
