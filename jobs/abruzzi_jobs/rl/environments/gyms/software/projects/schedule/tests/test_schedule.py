import unittest

from schedule import merge, parse_time, show_time


class ScheduleTest(unittest.TestCase):
    def test_times(self):
        self.assertEqual(parse_time("9:05"), 545)
        self.assertEqual(show_time(545), "09:05")

    def test_merge_keeps_what_is_apart(self):
        self.assertEqual(merge([(30, 40), (10, 20)]), [(10, 20), (30, 40)])


if __name__ == "__main__":
    unittest.main()
