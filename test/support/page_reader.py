"""A parser of HTML pages for tests."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Elements and texts of a page; fails on elements that are not closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(html)
        assert not self._open, self._open

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in ('img', 'meta'):
            self._open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self._open.pop() == name

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, name):
        return [attributes for element, attributes in self.elements if element == name]
