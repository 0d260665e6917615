, l AS MATERIALIZED (                            -- never waits: a row that somebody holds is told as not applied
  SELECT i.*, k.owner AS held_by, k.state AS was, k.started_at AS began
  FROM i JOIN oncekey.key k ON k.hash = i.hash AND k.version = i.expected
  WHERE i.expected > 0
    AND (i.grants OR CASE WHEN k.state <> 1      -- what expired on the way is only claimed anew
      THEN k.expires_at IS NULL OR k.expires_at > i.now
      ELSE (k.deadline IS NULL OR k.deadline + k.ttl_ms > i.now)
           AND (k.owner = $2 AND NOT i.ended     -- of another owner the end tells
                OR NOT EXISTS (SELECT 1 FROM oncekey.instance o WHERE o.id = k.owner AND o.ended_at IS NOT NULL
                               AND greatest(o.ended_at, k.started_at) + k.ttl_ms <= i.now))
      END)
  FOR UPDATE OF k SKIP LOCKED
), n AS MATERIALIZED (                           -- the version is drawn behind the row lock: versions of a row grow
  SELECT l.*, nextval('oncekey.version') AS v,
         CASE l.state WHEN 1 THEN NULL
              WHEN 2 THEN least(l.since, l.now,  -- an orphan is one since its owner ended, if that was earlier
                                (SELECT greatest(o.ended_at, l.began) FROM oncekey.instance o
                                 WHERE l.was = 1 AND o.id = l.held_by AND o.ended_at IS NOT NULL))
              ELSE l.now END AS at
  FROM l                                         -- no table of this statement is joined to another: that would be
), upd AS (                                      -- a loop in a loop over the group
  UPDATE oncekey.key k SET
    version    = n.v, writer = n.writer, op = n.op, state = n.state, attempt = n.attempt, ttl_ms = n.ttl_ms,
    token      = CASE WHEN n.grants THEN n.v ELSE k.token END,
    owner      = CASE WHEN n.grants THEN $2 ELSE k.owner END,
    started_at = CASE WHEN n.grants THEN n.now ELSE k.started_at END,
    deadline   = CASE WHEN n.grants THEN n.now + n.deadline_in ELSE k.deadline END,
    since      = n.at,
    expires_at = n.at + n.expires_in,
    leaf       = CASE WHEN n.at IS NULL THEN NULL
                      WHEN (n.at + n.expires_in) / n.bucket_ms - n.now / n.bucket_ms BETWEEN 0 AND n.leaves - 3
                      THEN ((n.at + n.expires_in) / n.bucket_ms % n.leaves)::smallint ELSE n.leaves END,
    fingerprint = coalesce(n.fingerprint, k.fingerprint),
    checkpoint  = CASE WHEN n.state IN (1, 2) AND NOT (n.grants AND n.attempt = 1) THEN coalesce(n.checkpoint, k.checkpoint) END
  FROM n WHERE k.hash = n.hash AND k.version = n.expected
  RETURNING k.hash, k.version, k.state, k.since, k.expires_at, k.leaf, n.resolves, n.body
), res AS (
  INSERT INTO oncekey.response (leaf, version, expires_at, hash, body)
  SELECT leaf, version, expires_at, hash, body FROM upd WHERE state <> 1
), orp AS (
  INSERT INTO oncekey.orphan (hash, since) SELECT hash, since FROM upd WHERE state = 2
  ON CONFLICT (hash) DO UPDATE SET since = excluded.since
), unorp AS (
  DELETE FROM oncekey.orphan o USING upd u WHERE u.resolves AND u.state <> 2 AND o.hash = u.hash
)
