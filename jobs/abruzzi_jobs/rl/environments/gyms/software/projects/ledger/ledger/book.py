"""Entries and balances."""

from dataclasses import dataclass

from .money import format_cents


@dataclass(frozen=True)
class Entry:
    day: str
    debit: str
    credit: str
    cents: int


class Book:
    def __init__(self):
        self.entries = []

    def post(self, day, debit, credit, cents):
        """Moves cents from the account `credit` to the account `debit`. Amounts are positive, the accounts differ."""
        if cents <= 0:
            raise ValueError("amounts are positive")
        if debit == credit:
            raise ValueError("an account cannot pay itself")
        entry = Entry(day, debit, credit, cents)
        self.entries.append(entry)
        return entry

    def balance(self, account, until=None):
        """Debits less credits, up to and with the day `until` (ISO date) where it is given."""
        total = 0
        for entry in self.entries:
            if until is not None and entry.day > until:
                continue
            if entry.debit == account:
                total += entry.cents
            if entry.credit == account:
                total -= entry.cents
        return total

    def accounts(self):
        """In order of name."""
        return sorted({name for entry in self.entries for name in (entry.debit, entry.credit)})

    def trial_balance(self):
        """Account -> balance of all accounts; the balances sum to zero."""
        return {account: self.balance(account) for account in self.accounts()}

    def statement(self, account):
        """A line for each entry of the account, by day, with the running balance."""
        lines, running = [], 0
        for entry in sorted(self.entries, key=lambda entry: entry.day):
            if account in (entry.debit, entry.credit):
                other = entry.credit if entry.debit == account else entry.debit
                running += entry.cents if entry.debit == account else -entry.cents
                lines.append(f"{entry.day} {other} {format_cents(running)}")
        return lines
