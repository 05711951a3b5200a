//! The place of a delivery in the queue of its directory, in SQL.

/// The rank of a delivery of the version `v` in the queue `q`: the key of a number, or of the path. A negative size
/// stands for a size of 2^63 or more, see `signed`. Times are limited to the range of a rank in milliseconds.
macro_rules! rank {
    () => {
        "CASE q.ordering
             WHEN 'newest' THEN number_key(-(least(greatest(v.mtime, -9000000000000000), 9000000000000000) * 1000
                 + v.mtime_nanos / 1000000))
             WHEN 'smallest' THEN number_key(CASE WHEN v.size < 0 THEN 9223372036854775807 ELSE v.size END)
             WHEN 'name' THEN path_key(v.path)
         END"
    };
}

/// When a delivery of the version `v` in the queue `q` expires.
macro_rules! expires_at {
    () => {
        "CASE WHEN v.kind = 'file' THEN v.admitted_at + q.expire END"
    };
}
pub(super) use {expires_at, rank};
