//! What a change of the settings comes to while the program runs: which parts can follow it, and how.

use super::{Directory, Monster, Vessel};

impl Monster {
    /// Takes over what can change while the program runs; gives the keys of the others that differ.
    pub fn follow(&mut self, new: &Self) -> Vec<&'static str> {
        // Named one by one, so that a new key must say here which of the two it is.
        let Self { chunk_size, cache, database, listen, listen_token, rate_limit, logging, simulate, .. } = self;
        let Self { min_free, keep_history, keep_processed, hooks, telling, .. } = self;
        *chunk_size = new.chunk_size;
        rate_limit.clone_from(&new.rate_limit);
        (*min_free, *keep_history, *keep_processed) = (new.min_free, new.keep_history, new.keep_processed);
        hooks.clone_from(&new.hooks);
        telling.clone_from(&new.telling);
        let fixed = [
            ("Cache", *cache != new.cache),
            ("Database", *database != new.database),
            ("Listen", *listen != new.listen),
            ("ListenToken", *listen_token != new.listen_token),
            ("LogLevel", logging.level != new.logging.level),
            ("LogFormat", logging.format != new.logging.format),
            ("LogFile", logging.target != new.logging.target),
            ("Simulate", *simulate != new.simulate),
        ];
        fixed.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Whether what runs beside the work does the same under another section.
    pub fn is_kept_and_told_like(&self, other: &Self) -> bool {
        let kept = |it: &Self| (it.min_free, it.keep_history);
        kept(self) == kept(other) && self.telling == other.telling
    }
}

impl Directory {
    /// Whether what is under way to the vessels is the same under another section: where files are read and where they go.
    /// What only says which files are taken, and when, is the shore's affair.
    pub fn is_delivered_like(&self, other: &Self) -> bool {
        let shores = Self {
            settle_time: other.settle_time,
            rescan_interval: other.rescan_interval,
            ignore_names: other.ignore_names.clone(),
            recursive: other.recursive,
            delete: other.delete,
            max_delete: other.max_delete,
            interval: other.interval,
            include: other.include.clone(),
            exclude: other.exclude.clone(),
            sizes: other.sizes.clone(),
            min_age: other.min_age,
            keep_processed: other.keep_processed,
            hooks: other.hooks.clone(),
            own_files: other.own_files.clone(),
            ..self.clone()
        };
        shores == *other
    }
}

impl Vessel {
    /// Whether a vessel that is connected to can be left so under another section: only its `RateLimit` differs, if anything.
    pub fn is_served_like(&self, other: &Self) -> bool {
        Self { rate_limit: other.rate_limit.clone(), ..self.clone() } == *other
    }
}
