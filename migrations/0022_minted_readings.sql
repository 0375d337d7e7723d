-- `GET /api/readings?state=minted`: a page of an admin's, in the order of the ids. Readings stay in this state for seconds, so the
-- index is small however many are finalized, and without it the page reads past all of those.
CREATE INDEX readings_minted ON readings (id) WHERE state = 'minted';
