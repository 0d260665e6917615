SELECT current_setting('server_version_num')::integer, pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
       current_setting('fsync')::boolean, current_setting('full_page_writes')::boolean,
       current_setting('synchronous_standby_names') <> '',
       (SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout')
