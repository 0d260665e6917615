-- $1 incarnation, $2 secret, $3 bucket_ms, $4 leaves
WITH held AS (
  INSERT INTO oncekey.store (format, min_format, incarnation, generation, secret, bucket_ms, leaves, high_time)
  SELECT 1, 1, $1::bigint, 0, $2::bytea, $3::bigint, $4::smallint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
  ON CONFLICT DO NOTHING RETURNING 1
)
INSERT INTO oncekey.upkeep (at, page, began, whole) SELECT 0, 0, 0, 0 FROM held ON CONFLICT DO NOTHING
