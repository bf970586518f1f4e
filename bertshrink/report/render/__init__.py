"""How a report is shown: on a terminal, as Markdown, as one HTML file.

    Report -> table.build -> Table -> terminal.render   a Rich renderable; `cli` prints it
                                   -> markdown.render   text for a README, a pull request, a step summary
                                   -> html.render       one self-contained page, with the pictures of `plots`

The three never compute: what a cell says, which ratio and which verdict are in it and what its footnote tells is
decided once, in `table`, with `verdicts` for who is faster, `footnotes` on how figures were obtained, `target_sections`
on what the figures of each place are worth and cannot claim, and `notes` on what else to think of them.
"""
