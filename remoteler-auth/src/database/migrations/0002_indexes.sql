DROP TABLE events;
ALTER TABLE events_2 RENAME TO events;
CREATE INDEX events_time ON events (time);
CREATE INDEX events_event ON events (event, time);
CREATE INDEX events_user ON events (user, time);
CREATE INDEX events_target ON events (target, time) WHERE target IS NOT NULL;
CREATE INDEX events_failed ON events (time) WHERE failed = 1;
CREATE INDEX events_sid ON events (sid, event) WHERE sid IS NOT NULL;
