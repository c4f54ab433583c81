//! The answers of HAProxy's runtime socket.

use std::sync::atomic::Ordering;

use super::{Backend, Running, VERSION};

// HAProxy 3.0.11's own header of `show stat`: management.txt, section 9.1, and the modules' columns after proto.
const COLUMNS: &str = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,rate_max,check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,rtime,ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health,agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew,connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,eint,idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est,uweight,agg_server_status,agg_server_check_status,agg_check_status,srid,sess_other,h1sess,h2sess,h3sess,req_other,h1req,h2req,h3req,proto,-,ssl_sess,ssl_reused_sess,ssl_failed_handshake,h3_data,h3_headers,h3_cancel_push,h3_push_promise,h3_max_push_id,h3_goaway,h3_settings,h3_no_error,h3_general_protocol_error,h3_internal_error,h3_stream_creation_error,h3_closed_critical_stream,h3_frame_unexpected,h3_frame_error,h3_excessive_load,h3_id_error,h3_settings_error,h3_missing_settings,h3_request_rejected,h3_request_cancelled,h3_request_incomplete,h3_message_error,h3_connect_error,h3_version_fallback,pack_decompression_failed,qpack_encoder_stream_error,qpack_decoder_stream_error,quic_rxbuf_full,quic_dropped_pkt,quic_dropped_pkt_bufoverrun,quic_dropped_parsing_pkt,quic_socket_full,quic_sendto_err,quic_sendto_err_unknwn,quic_sent_pkt,quic_lost_pkt,quic_too_short_dgram,quic_retry_sent,quic_retry_validated,quic_retry_error,quic_half_open_conn,quic_hdshk_fail,quic_stless_rst_sent,quic_conn_migration_done,quic_transp_err_no_error,quic_transp_err_internal_error,quic_transp_err_connection_refused,quic_transp_err_flow_control_error,quic_transp_err_stream_limit_error,quic_transp_err_stream_state_error,quic_transp_err_final_size_error,quic_transp_err_frame_encoding_error,quic_transp_err_transport_parameter_error,quic_transp_err_connection_id_limit,quic_transp_err_protocol_violation_error,quic_transp_err_invalid_token,quic_transp_err_application_error,quic_transp_err_crypto_buffer_exceeded,quic_transp_err_key_update_error,quic_transp_err_aead_limit_reached,quic_transp_err_no_viable_path,quic_transp_err_crypto_error,quic_transp_err_unknown_error,quic_data_blocked,quic_stream_data_blocked,quic_streams_blocked_bidi,quic_streams_blocked_uni,h2_headers_rcvd,h2_data_rcvd,h2_settings_rcvd,h2_rst_stream_rcvd,h2_goaway_rcvd,h2_detected_conn_protocol_errors,h2_detected_strm_protocol_errors,h2_rst_stream_resp,h2_goaway_resp,h2_open_connections,h2_backend_open_streams,h2_total_connections,h2_backend_total_streams,h1_open_connections,h1_open_streams,h1_total_connections,h1_total_streams,h1_bytes_in,h1_bytes_out,h1_spliced_bytes_in,h1_spliced_bytes_out,";

/// Answers a command as the socket does: text, an empty line at its end.
pub fn command(running: &Running, node: &str, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["show", "stat"] => format!("{}\n", stat(running)),
        ["show", "info"] => format!("{}\n", info(running, node)),
        ["show", "servers", "state"] => format!("{}\n", servers_state(running)),
        ["show", "version"] => format!("{VERSION}\n\n"),
        ["disable", "server", name] => maintenance(running, name, true),
        ["enable", "server", name] => maintenance(running, name, false),
        ["set", "server", name, "state", "maint" | "drain"] => maintenance(running, name, true),
        ["set", "server", name, "state", "ready"] => maintenance(running, name, false),
        _ => format!(
            "Unknown command: '{}', but maybe one of the following ones is a better match:\n\n",
            words.first().unwrap_or(&"")
        ),
    }
}

fn find<'a>(running: &'a Running, name: &str) -> Option<&'a Backend> {
    let (proxy, server) = name.split_once('/')?;
    running.servers.get(&(proxy.into(), server.into())).map(|b| &**b)
}

fn maintenance(running: &Running, name: &str, on: bool) -> String {
    match find(running, name) {
        Some(backend) => {
            backend.set_maintenance(on);
            "\n".into()
        }
        None => "No such server.\n\n".into(),
    }
}

/// The table of `show stat`.
pub fn stat(running: &Running) -> String {
    let columns = COLUMNS.matches(',').count();
    let mut text = format!("{COLUMNS}\n");
    let mut push = |lead: String, tail: &str| {
        let mut row = lead;
        while row.matches(',').count() < columns {
            row.push_str(tail);
            row.push(',');
        }
        text.push_str(&row);
        text.push('\n');
    };
    let connections = running.connections.load(Ordering::Relaxed);
    let since = running.since.elapsed().as_secs();
    for (index, proxy) in running.config.proxies.iter().enumerate() {
        let (name, id) = (&proxy.name, index + 2);
        let mode = if proxy.http { "http" } else { "tcp" };
        if proxy.kind != "backend" {
            push(
                format!(
                    "{name},FRONTEND,,,0,0,{},{connections},0,0,0,0,0,,,,,OPEN,,,,,,,,,1,{id},0,,,,0,0,0,0,,,,,,,,,,,0,0,0,,,0,0,0,0,,,,,,,,,,,,,,,,,,,,,\
                     {mode},,0,0,{connections},,0,0,0,,,,,,,,,,,0,,,,,,,,,,0,0,0,0,0,0,0,0,,-,",
                    running.config.maxconn
                ),
                "0",
            );
        }
        if proxy.kind == "frontend" {
            continue;
        }
        let mut alive = 0;
        for (number, server) in proxy.servers.iter().enumerate() {
            let Some(backend) = running.servers.get(&(name.clone(), server.name.clone())) else { continue };
            alive += u32::from(backend.usable());
            push(server_row(name, id, number + 1, mode, since, backend), "");
        }
        let status = if alive > 0 { "UP" } else { "DOWN" };
        push(
            format!(
                "{name},BACKEND,0,0,0,0,{},0,0,0,0,0,,0,0,0,0,{status},{alive},{alive},0,,0,{since},0,,1,{id},0,,0,,1,0,,0,,,,,,,,,,,,,,0,0,0,0,0,0,-1,,,0,0,0,0,\
                 ,,,,,,,,,,,,,,{mode},{},,,,,,,0,0,0,,,,,0,0,0,0,0,,,,,{alive},0,0,0,,,,,,,,,,,-,",
                running.config.maxconn / 10,
                proxy.balance.split(' ').next().unwrap_or("roundrobin")
            ),
            "",
        );
    }
    text
}

fn server_row(proxy: &str, id: usize, number: usize, mode: &str, since: u64, backend: &Backend) -> String {
    let server = &backend.server;
    let verdict = backend.verdict();
    let code = verdict.code.map(|c| c.to_string()).unwrap_or_default();
    let status = backend.status();
    let sessions = backend.sessions.load(Ordering::Relaxed);
    let described = match verdict.word {
        "L4OK" => "Layer4 check passed",
        "L6OK" => "Layer6 check passed",
        "L7OK" => "Layer7 check passed",
        "L4TOUT" => "Layer4 timeout",
        "L4CON" => "Layer4 connection problem",
        "L6RSP" => "Layer6 invalid response",
        "L7RSP" => "Layer7 invalid response",
        "L7STS" => "Layer7 wrong status",
        _ => "",
    };
    let took = if verdict.word.is_empty() { String::new() } else { verdict.took.to_string() };
    let (active, spare) = if server.backup { (0, 1) } else { (1, 0) };
    let address = server.address.map(|a| format!("{a}:{}", server.port)).unwrap_or_default();
    let down = u32::from(status == "DOWN");
    let health = if down == 0 { server.rise + server.fall - 1 } else { 0 };
    format!(
        "{proxy},{},0,0,0,0,,{sessions},0,0,,0,,0,0,0,0,{status},1,{active},{spare},{down},{down},{since},0,,1,{id},{number},,{sessions},,2,0,,0,{},{code},{took},\
         ,,,,,,,,,,0,0,,,,,-1,,,0,0,0,0,,,,{described},,{},{},{health},,,,{address},,{mode},,,,,,,,0,{sessions},0,,,0,,0,0,0,0,0,0,0,0,1,1,,,,0,,,,,,,,,,-,",
        server.name, verdict.word, server.rise, server.fall
    )
}

fn info(running: &Running, node: &str) -> String {
    let up = running.since.elapsed().as_secs();
    let connections = running.connections.load(Ordering::Relaxed);
    let maxconn = running.config.maxconn;
    let description = running.config.description.as_ref();
    let description = description.map(|d| format!("description: {d}\n")).unwrap_or_default();
    let listeners: usize = running.config.proxies.iter().map(|p| p.binds.len()).sum();
    format!(
        "Name: HAProxy\nVersion: {VERSION}\nRelease_date: 2026/05/20\nNbthread: 2\nNbproc: 1\nProcess_num: 1\nPid: 1071\n\
         Uptime: 0d 0h{:02}m{:02}s\nUptime_sec: {up}\nMaxconn: {maxconn}\nHard_maxconn: {maxconn}\nCurrConns: 0\nCumConns: {connections}\n\
         CumReq: {connections}\nnode: {node}\n{description}Stopping: 0\nListeners: {listeners}\nTotalWarnings: 0\n",
        up / 60 % 60,
        up % 60
    )
}

fn servers_state(running: &Running) -> String {
    let mut text = String::from(
        "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change \
         srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port \
         srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n",
    );
    for (index, proxy) in running.config.proxies.iter().enumerate().filter(|(_, p)| p.kind != "frontend") {
        for (number, server) in proxy.servers.iter().enumerate() {
            let Some(backend) = running.servers.get(&(proxy.name.clone(), server.name.clone())) else {
                continue;
            };
            let (op, admin) =
                (if backend.status() == "DOWN" { 0 } else { 2 }, u32::from(backend.status() == "MAINT"));
            let address = server.address.map(|a| a.to_string()).unwrap_or_default();
            text.push_str(&format!(
                "{} {} {} {} {address} {op} {admin} 1 1 {} 15 3 2 6 0 0 0 - {} - 0 0 - - 0\n",
                index + 2,
                proxy.name,
                number + 1,
                server.name,
                running.since.elapsed().as_secs(),
                server.port
            ));
        }
    }
    text
}

/// What the Prometheus exporter tells, in excerpt.
pub fn metrics(running: &Running) -> String {
    let mut text = String::from("# TYPE haproxy_server_status gauge\n");
    for ((proxy, server), backend) in &running.servers {
        let up = u32::from(backend.usable());
        text.push_str(&format!(
            "haproxy_server_status{{proxy=\"{proxy}\",server=\"{server}\",state=\"UP\"}} {up}\n"
        ));
    }
    text.push_str(&format!(
        "# TYPE haproxy_process_connections_total counter\nhaproxy_process_connections_total {}\n",
        running.connections.load(Ordering::Relaxed)
    ));
    text
}
