-- Joining parts became a step of uploading: nothing enters the state 'assembling', and what a ledger still has in it goes on
-- where an upload does.
UPDATE delivery SET state = 'uploading' WHERE state = 'assembling';
