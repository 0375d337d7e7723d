CREATE TABLE feed_tickets (
    hash BYTEA PRIMARY KEY CHECK (octet_length(hash) = 32),
    subject TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('user', 'admin')),
    token_expires_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX feed_tickets_expires_at ON feed_tickets (expires_at);
CREATE INDEX feed_tickets_subject ON feed_tickets (subject);
COMMENT ON TABLE feed_tickets IS 'Tickets that open one stream of the feed each, for pages that cannot set a header. Using one deletes it.';
COMMENT ON COLUMN feed_tickets.hash IS 'SHA-256 of the ticket: who reads the table cannot use it.';
COMMENT ON COLUMN feed_tickets.subject IS 'Of the token that the ticket was given for, as is the role.';
COMMENT ON COLUMN feed_tickets.token_expires_at IS 'The end of that token, and of the stream.';
COMMENT ON COLUMN feed_tickets.expires_at IS 'The end of the ticket itself.';
