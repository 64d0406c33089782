"""The checkpoint engine: new weights from those who train to those who generate (paper 3.3.2, 3.3.3, appendix G).

plan -> register -> broadcast -> reload -> verify. `CheckpointWorker` is one member of a group; transports and the group's sockets are what differ
between one process, one machine and a cluster.
"""
