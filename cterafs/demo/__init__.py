"""An embedded portal and object store: the server side of the protocol, over a real directory or a model in memory.

It exists for demonstrations and for tests. It shares no code with the clients, so that its encoder checks their
decoder.
"""
