"""How a report is shown: on a terminal, as Markdown, as one HTML file.

    Report -> table.build -> Table -> terminal.render   a Rich renderable; `cli` prints it
                                   -> markdown.render   text for a README, a pull request, a step summary
                                   -> html.render       one self-contained page, with the pictures of plots.py

The three never compute: what a cell says, which ratio stands in it and what its footnote tells is decided once, in
`table`, with `footnotes` on how figures were obtained and `advice` on what to think of them.
"""
