"""Ids and names: 64 hexadecimal digits for the machine, adjective_surname for people."""

import os

# Our own picks: adjectives one would like to be called by, people whose work a container stands on.
ADJECTIVES = (
    "able agile amber apt bold brave bright brisk calm candid clever cosy crisp curious daring deft eager earnest "
    "fair fleet fond frank fresh gentle glad golden grand happy hardy honest humble jolly keen kind lively lucid "
    "merry mild modest neat nimble noble patient plucky polite proud quick quiet ready sharp silver sincere snug "
    "spry steady sunny swift tidy true upbeat vivid warm wise witty zesty"
).split()
SURNAMES = (
    "allen babbage backus bartik bell berners_lee blackwell boole bostic cerf church cox dahl dean dennis dijkstra "
    "easley engelbart floyd gosling hamilton hejlsberg hoare hollerith holberton hopper iverson karp kay kernighan "
    "knuth lamport lampson leibniz liskov lovelace mccarthy mcilroy mckusick milner minsky mockapetris naur "
    "neumann nygaard ossanna perlis perlman pike postel ritchie rossum sammet shannon stallman stevens tanenbaum "
    "thompson torvalds turing wheeler wilkes wirth zuse"
).split()


def new_id() -> str:
    """64 hexadecimal digits. The first twelve serve as the host name, so they are never all decimal."""
    while True:
        fresh = os.urandom(32).hex()
        if not fresh[:12].isdigit():
            return fresh


def new_name() -> str:
    """adjective_surname, at random."""
    first, second = os.urandom(2)
    return f"{ADJECTIVES[first % len(ADJECTIVES)]}_{SURNAMES[second % len(SURNAMES)]}"


def valid(name: str) -> bool:
    """Docker's rule: [a-zA-Z0-9][a-zA-Z0-9_.-]+"""
    rest = name.replace("_", "").replace(".", "").replace("-", "")
    return len(name) > 1 and name[0].isalnum() and name.isascii() and rest.isalnum()
