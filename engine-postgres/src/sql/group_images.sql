, i AS MATERIALIZED (                            -- row images; what only the database knows is a hole
  SELECT i.*, s.now, s.ended, s.bucket_ms, s.leaves FROM s, unnest(
    $7::uuid[], $8::bigint[], $9::bigint[], $10::bigint[], $11::smallint[], $12::integer[], $13::boolean[], $14::boolean[],
    $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bytea[], $20::bytea[], $21::bytea[], $22::bytea[])
    AS i(hash, expected, writer, op, state, attempt, grants, resolves,
         ttl_ms, deadline_in, since, expires_in, identity, fingerprint, checkpoint, body)
  WHERE s.gate = 0 AND NOT (i.grants AND s.ended)  -- an ended instance gets no claims
)
