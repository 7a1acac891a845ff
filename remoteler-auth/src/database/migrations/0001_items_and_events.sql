CREATE TABLE items (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, expires INTEGER
) WITHOUT ROWID;
CREATE INDEX items_expires ON items (expires) WHERE expires IS NOT NULL;
CREATE TABLE counter (revision INTEGER NOT NULL);
INSERT INTO counter VALUES (0);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, uid BLOB NOT NULL UNIQUE, time INTEGER NOT NULL,
    event TEXT NOT NULL, user TEXT, sid TEXT, body TEXT NOT NULL, chain BLOB NOT NULL
);
CREATE INDEX events_time ON events (time);
CREATE INDEX events_event ON events (event, time);
CREATE INDEX events_user ON events (user, time);
CREATE INDEX events_sid ON events (sid, event) WHERE sid IS NOT NULL;
