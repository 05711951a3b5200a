-- A version may be admitted before anybody has read it: its digest is empty until it is hashed on its way to the first
-- vessel. The digests of chunks are made when one is to be repaired, which is rare, and not kept.
ALTER TABLE version DROP COLUMN chunks;
