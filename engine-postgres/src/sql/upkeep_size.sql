SELECT (SELECT count(*) FROM oncekey.orphan),
       pg_total_relation_size('oncekey.key') + (SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits
         WHERE inhparent = 'oncekey.response'::regclass)
