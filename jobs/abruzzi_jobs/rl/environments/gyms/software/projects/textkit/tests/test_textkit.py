import unittest

from textkit import slugify, table, wrap


class TextkitTest(unittest.TestCase):
    def test_slug(self):
        self.assertEqual(slugify("Two words"), "two-words")

    def test_wrap(self):
        self.assertEqual(wrap("one two", 20), ["one two"])

    def test_table(self):
        self.assertEqual(table([["a", "b"]]), "a  b")


if __name__ == "__main__":
    unittest.main()
