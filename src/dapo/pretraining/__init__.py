"""The embedded backbone: a generated world, a text stage, an image stage.

`scenes` draws the world: `fields` make `materials`, `patterns` and `lettering`, these `surfaces`, `marks` and
`shapes` make `parts` of them, `flaws` spoil them. `captions` and `lexicon` put it into words, `text`
and `contrastive` train the two towers, `recipe` runs both. `text`, `batches`, `contrastive` and `recipe` need
torch, the others do not.
"""
