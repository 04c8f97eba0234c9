"""The tests of Luce."""
