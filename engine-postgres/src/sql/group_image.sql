, i AS MATERIALIZED (                            -- one row image; what only the database knows is a hole
  SELECT $7::uuid AS hash, $8::bigint AS expected, $9::bigint AS writer, $10::bigint AS op, $11::smallint AS state,
         $12::integer AS attempt, $13::boolean AS grants, $14::boolean AS resolves, $15::bigint AS ttl_ms,
         $16::bigint AS deadline_in, $17::bigint AS since, $18::bigint AS expires_in, $19::bytea AS identity,
         $20::bytea AS fingerprint, $21::bytea AS checkpoint, $22::bytea AS body, s.now, s.ended, s.bucket_ms, s.leaves
  FROM s WHERE s.gate = 0 AND NOT ($13 AND s.ended)  -- an ended instance gets no claims
)
