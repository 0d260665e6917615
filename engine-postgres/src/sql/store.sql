SELECT s.format, s.min_format, s.incarnation, s.generation, s.secret, s.bucket_ms, s.leaves, s.high_time,
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint, b.mark
FROM oncekey.store s LEFT JOIN oncekey.boot b ON b.one WHERE s.one
