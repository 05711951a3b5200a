//! What the matrix has not met yet. Each of these is tried, and what is wrong is printed; a row of which nothing is wrong
//! any more belongs here no longer.

use super::cell::Cell;

pub(super) const NOT_YET: &[(&str, &[Cell])] = &[
    ("OpenSSH, .bashrc of 12 s", &Cell::ALL),
    ("LSTAT unsupported", &Cell::ALL),
    ("STAT, FSTAT unsupported", &Cell::ALL),
    ("no stat, denied", &Cell::ALL),
    ("write-only", &Cell::ALL),
    ("no types in attributes", &Cell::ALL),
    ("exec disconnects", &Cell::ALL),
];
