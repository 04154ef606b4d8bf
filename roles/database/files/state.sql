-- The server's state as one line of JSON. Variables: name, owner, user, health; environment: KALLITHEA_FOLDER, KALLITHEA_UNIT.
\set ON_ERROR_STOP 1
-- When our files were last put in their place; the server says when it last read them.
\set newest `stat -c %.9Z "$KALLITHEA_FOLDER/conf.d/kallithea.conf" "$KALLITHEA_FOLDER/pg_hba.conf" "$KALLITHEA_FOLDER/pg_ident.conf" 2>/dev/null | sort -n | tail -n 1`
\set enabled `systemctl is-enabled "$KALLITHEA_UNIT" 2>/dev/null`
SELECT EXISTS (SELECT FROM pg_database WHERE datname = :'name') AS there,
  json_build_object(
    'enabled', :'enabled' = 'enabled',
    'pending_restart', (SELECT count(*) FROM pg_settings WHERE pending_restart),
    'max_connections', current_setting('max_connections')::int,
    'reserve', coalesce(current_setting('kallithea.reserve', true), ''),
    'reload', coalesce(nullif(:'newest', '')::float8, 0) > extract(epoch FROM pg_conf_load_time()),
    'rule_errors', (SELECT coalesce(json_agg(format('line %s: %s', line_number, error)), '[]') FROM
      (SELECT line_number, error FROM pg_hba_file_rules UNION ALL SELECT line_number, error FROM pg_ident_file_mappings) AS r WHERE error IS NOT NULL),
    'database', (SELECT json_build_object(
        'owner', pg_get_userbyid(datdba),
        'rights', (SELECT coalesce(json_agg(DISTINCT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END || ':' || privilege_type), '[]')
          FROM aclexplode(coalesce(datacl, acldefault('d', datdba)))))
      FROM pg_database WHERE datname = :'name'),
    'roles', (SELECT coalesce(json_object_agg(rolname, json_build_object(
        'login', rolcanlogin,
        'powers', rolsuper OR rolcreatedb OR rolcreaterole,
        'verifier', encode(sha256(convert_to(rolpassword, 'UTF8')), 'hex'),
        'configuration', coalesce((SELECT setconfig FROM pg_db_role_setting WHERE setrole = pg_authid.oid AND setdatabase = 0), '{}'),
        'member_of', (SELECT coalesce(json_agg(pg_get_userbyid(roleid)), '[]') FROM pg_auth_members WHERE member = pg_authid.oid))), '{}')
      FROM pg_authid WHERE rolname IN (:'owner', :'user', :'health'))
  ) AS state \gset
\set strangers []
\if :there
\connect :"name"
SELECT coalesce(json_agg(DISTINCT tableowner), '[]') AS strangers FROM pg_tables
  WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tableowner <> :'owner' \gset
\endif
SELECT :'state'::jsonb || jsonb_build_object('strangers', :'strangers'::jsonb);
