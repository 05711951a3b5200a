# What continuous integration runs (`.ci/run` is `just all`), step by step. Each recipe is a step of scripts/test.

# Lists the recipes.
default:
    @just --list

# Everything: what must pass before a change is merged.
all:
    scripts/test

# Installs what the tests need from Debian's packages.
packages:
    scripts/test packages

# Formatting.
format:
    scripts/test format

# Lints.
clippy:
    scripts/test clippy

# The documentation of the code.
rustdoc:
    scripts/test rustdoc

# All tests.
tests:
    scripts/test tests

# Licences, banned crates and sources of the dependencies, and known holes in them.
dependencies:
    scripts/test licences advisories

# The shell scripts.
scripts:
    scripts/test scripts

# The book as a website. Needs mdBook.
book:
    scripts/test book

# The files of a release, packed from the program that the tests build.
release:
    scripts/test release

# The Debian package on a clean Debian. Needs a docker engine.
package:
    scripts/test package

# The shore and three vessels in containers. Needs a docker engine and Compose.
testbed:
    scripts/test testbed

# Two shores, a PostgreSQL and three vessels in containers. Needs a docker engine and Compose.
testbed-ha:
    scripts/test testbed-ha

# Formats the code, and writes settings.example.ini and docs/src/settings.md from the tables of keys.
rewrite:
    cargo fmt
    CONTENTMONSTER_REWRITE=1 cargo test --locked --test it book::reference
