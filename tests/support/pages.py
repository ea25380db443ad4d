"""What tests of pages share: a parser, how a browser lays a page out, and a text of a bad user."""

import html.parser

EVIL = "<script>alert('&')</script>"


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text within some of them."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.inside, self.texts = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)
        if tag not in ("meta", "input"):
            self.texts.setdefault(tag, []).append("")
        else:
            self.inside.pop()

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in set(self.inside):
            self.texts[tag][-1] += data

    def row(self, name):
        """The text of the first table row of that name."""
        return next(row for row in self.texts["tr"] if row.startswith(name))


LAYOUT = """(() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const root = document.documentElement;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = all(".plot svg").filter((e) => e.getClientRects().length);
  return {
    wide: root.scrollWidth,
    available: root.clientWidth,
    over: all("main *, header *, nav").filter(
      (e) => e.getBoundingClientRect().right > root.clientWidth + 1 &&
        !e.closest(".table, svg, .parts div")
    ).map((e) => e.tagName),
    cut: all(".table").filter((e) => e.scrollWidth > e.clientWidth + 1).length,
    figures: shown.length,
    smallest: Math.min(...shown.map((e) => e.getBoundingClientRect().width)),
    outside: shown.flatMap((svg) => {
      const box = svg.getBoundingClientRect();
      return [...svg.querySelectorAll("text")].filter((t) => {
        const b = t.getBoundingClientRect();
        return b.left < box.left - 4 || b.right > box.right + 4 || b.bottom > box.bottom + 4;
      }).map((t) => t.textContent);
    }),
    links: all("nav a").filter((e) => e.getClientRects().length).length,
  };
})()"""
