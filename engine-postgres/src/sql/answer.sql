SELECT 1::smallint AS how, s.now, s.gate, s.ended, d.hash, d.version,
       NULL::bigint AS token, NULL::bigint AS owner, NULL::bigint AS writer, NULL::bigint AS op, NULL::bigint AS started_at,
       NULL::bigint AS ttl_ms, NULL::bigint AS deadline, NULL::bigint AS since, NULL::bigint AS expires_at,
       NULL::integer AS attempt, NULL::smallint AS state, NULL::bytea AS identity, NULL::bytea AS fingerprint,
       NULL::bytea AS checkpoint, NULL::bigint AS owner_ended, NULL::boolean AS owner_lapsed,
       NULL::boolean AS body_there, NULL::bytea AS body
  FROM s, done d
UNION ALL                                        -- for all others the row that is there, as this statement began
SELECT 0::smallint, s.now, s.gate, s.ended, k.hash, k.version,
       k.token, k.owner, k.writer, k.op, k.started_at, k.ttl_ms, k.deadline, k.since, k.expires_at,
       k.attempt, k.state, k.identity, k.fingerprint, k.checkpoint,
       CASE WHEN k.state <> 1 THEN NULL
            WHEN o.id IS NULL THEN s.now         -- an owner without a row is an ended one
            WHEN o.ended_at IS NOT NULL THEN least(s.now, greatest(o.ended_at, k.started_at)) END,
       k.state = 1 AND o.ended_at IS NULL AND (o.lease_until < s.now OR o.lease_until > s.now + o.lease_ms),
       r.version IS NOT NULL, r.body
  FROM s, asked a JOIN oncekey.key k ON k.hash = a.hash
    LEFT JOIN oncekey.instance o ON k.state = 1 AND o.id = k.owner
    LEFT JOIN LATERAL (SELECT r.version, r.body FROM oncekey.response r
                       WHERE k.state IN (3, 4) AND r.leaf = k.leaf AND r.version = k.version) r ON true
  WHERE a.hash NOT IN (SELECT hash FROM done)
UNION ALL
SELECT 2::smallint, s.now, s.gate, s.ended, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
  FROM s
