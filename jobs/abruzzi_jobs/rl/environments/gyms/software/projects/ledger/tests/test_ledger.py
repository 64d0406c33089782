import unittest

from ledger import Book, format_cents, parse_cents


class LedgerTest(unittest.TestCase):
    def test_whole_amounts(self):
        self.assertEqual(parse_cents("12"), 1200)
        self.assertEqual(format_cents(1250), "12.50")

    def test_post_moves_money(self):
        book = Book()
        book.post("2026-01-02", "rent", "bank", 70000)
        self.assertEqual(book.balance("rent"), 70000)


if __name__ == "__main__":
    unittest.main()
