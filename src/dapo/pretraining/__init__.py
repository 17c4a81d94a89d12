"""The embedded backbone: a generated world, a text stage, an image stage.

`scenes` draws the world: `fields` make `materials`, `patterns` and `lettering`, these `surfaces`, `marks` and
`shapes` make `parts` of them, `flaws` spoil them. `captions` and `lexicon` put it into words. `text` trains
the text tower (`corpus` feeds it, `reading` measures what it reads), `contrastive` the vision tower;
`phrases` teaches new phrases to a text tower that has a vision tower already; `recipe` runs them all. From
`text` on they need torch, what comes before does not.
"""
