"""The one seam to everything that thinks: `await roles["judge"].complete(ChatRequest(...))` (design section 7). Needs no torch.

Stages open their roles with `chat.stage.stage_roles`, others with `chat.roles.open_roles`; questions and answers are in `chat.request`, what can
go wrong in `chat.failures`. Nothing is imported here, so that the command line and the servers start quickly.
"""
