"""The REST side: one function per endpoint, each with the queries and fields that it knows. Anything else is answered 501 and remembered."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .certificates import Certificates
from .cluster import Cluster, Group, Refused

PROJECT, STORE = 119, 67
HERE = rf'/hopsworks-api/api/project/{PROJECT}'
SHELF = f'{HERE}/featurestores/{STORE}'
EXPAND_GROUP = {'expand': {'features', 'expectationsuite', 'transformationfunctions', 'mandatorytags'}}
EXPAND_VIEW = {'expand': {'query', 'features', 'transformationfunctions', 'mandatorytags'}}
GROUP_FIELDS = {
    'id',
    'name',
    'version',
    'description',
    'onlineEnabled',
    'timeTravelFormat',
    'features',
    'featurestoreId',
    'type',
    'statisticsConfig',
    'eventTime',
    'expectationSuite',
    'parents',
    'topicName',
    'notificationTopicName',
    'deprecated',
    'transformationFunctions',
    'ttl',
    'ttlEnabled',
    'sinkEnabled',
    'onlinePartitionColumns',
    'deltaStreamerJobConf',
    'dataSource',
}
FEATURE_FIELDS = {
    'name',
    'type',
    'description',
    'primary',
    'foreign',
    'partition',
    'hudiPrecombineKey',
    'offlineOnly',
    'onlineType',
    'defaultValue',
    'featureGroupId',
    'onDemand',
    'columnName',
    'useFullyQualifiedName',
}
QUERY_FIELDS = {
    'featureStoreName',
    'featureStoreId',
    'leftFeatureGroup',
    'leftFeatures',
    'leftFeatureGroupStartTime',
    'leftFeatureGroupEndTime',
    'joins',
    'filter',
    'limit',
    'hiveEngine',
}
VIEW_FIELDS = {
    'featurestoreId',
    'name',
    'version',
    'description',
    'query',
    'features',
    'loggingEnabled',
    'transformationFunctions',
    'type',
    'extraLogColumns',
}
LONGEST_DESCRIPTION = 256


class Asked(NamedTuple):
    "One request."

    cluster: Cluster
    certificates: Certificates
    query: Mapping[str, list[str]]
    body: Any


class Route(NamedTuple):
    "An endpoint."

    method: str
    path: re.Pattern[str]
    query: Mapping[str, set[str] | None]  # name to the values it may have; None: any
    answer: Callable[..., Any]


ROUTES: list[Route] = []


def route(
    method: str, path: str, **query: set[str] | None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    "Register the function that answers an endpoint."

    def register(answer: Callable[..., Any]) -> Callable[..., Any]:
        ROUTES.append(Route(method, re.compile(path), query, answer))
        return answer

    return register


def only(body: Mapping[str, Any], known: set[str], what: str) -> None:
    "Refuse a body with a field that the double does not know."
    if extra := set(body) - known:
        raise Refused(501, 0, f'{what} has unknown fields {sorted(extra)}')


def unused(body: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    "Refuse a body that uses what the double does not do."
    if used := [name for name in names if body.get(name)]:
        raise Refused(501, 0, f'{what} uses {used}')


# --- login


@route('GET', '/hopsworks-api/api/variables/versions')
def versions(asked: Asked) -> Any:
    return [{'software': 'hopsworks', 'version': '5.2.1'}]


@route('GET', '/hopsworks-api/api/variables/(?P<name>[a-z_]+)')
def variable(asked: Asked, name: str) -> Any:
    known = {
        'service_discovery_domain': asked.cluster.domain,
        'enable_flyingduck': 'true',
        'loadbalancer_external_domain_feature_query': 'localhost',
        'loadbalancer_external_domain_online_store_rest_server': 'localhost',
    }
    if name not in known:
        raise Refused(501, 0, f'unknown variable {name}')
    return {'successMessage': known[name]}


@route('GET', '/hopsworks-api/api/project/getProjectInfo/(?P<name>[^/]+)')
def project_info(asked: Asked, name: str) -> Any:
    if name != asked.cluster.project:
        raise Refused(404, 150004, f'no project {name}')
    return {
        'projectId': PROJECT,
        'projectName': name,
        'owner': 'double',
        'description': '',
        'created': '2026-01-01T00:00:00Z',
    }


@route('GET', '/hopsworks-api/api/project')
def projects(asked: Asked) -> Any:
    return [{'user': {'username': 'double000'}, 'project': {'name': asked.cluster.project}}]


@route('GET', f'{HERE}/credentials')
def credentials(asked: Asked) -> Any:
    store = base64.b64encode(b'no java key store here').decode()
    made = asked.certificates
    return {
        'kStore': store,
        'tStore': store,
        'password': 'double',
        'caChain': made.authority.decode(),
        'clientCert': made.client.certificate.decode(),
        'clientKey': made.client.key.decode(),
    }


@route('GET', f'{HERE}/featurestores')
def feature_stores(asked: Asked) -> Any:
    return [feature_store(asked, str(STORE))]


@route('GET', f'{HERE}/featurestores/(?P<name>[^/]+)')
def feature_store(asked: Asked, name: str) -> Any:
    if name not in (f'{asked.cluster.project}_featurestore', str(STORE)):
        raise Refused(404, 270012, f'no feature store {name}')
    return {
        'featurestoreId': STORE,
        'featurestoreName': f'{asked.cluster.project}_featurestore',
        'created': '2026-01-01T00:00:00Z',
        'projectName': asked.cluster.project,
        'projectId': PROJECT,
        'offlineFeaturestoreName': f'{asked.cluster.project}_featurestore',
        'onlineFeaturestoreName': asked.cluster.project,
        'onlineEnabled': True,
        'numFeatureGroups': len(asked.cluster.groups),
        'numTrainingDatasets': 0,
        'numStorageConnectors': 1,
        'numFeatureViews': len(asked.cluster.views),
    }


# --- feature groups


def group_of(asked: Asked, number: str | int) -> Group:
    if int(number) not in asked.cluster.groups:
        raise Refused(404, 270009, f'no feature group {number}')
    return asked.cluster.groups[int(number)]


@route('GET', f'{SHELF}/featuregroups/(?P<name>[a-z][a-z0-9_]*)', version=None, **EXPAND_GROUP)
def get_group(asked: Asked, name: str) -> Any:
    version = int(asked.query['version'][0])
    found = [
        g.dto for g in asked.cluster.groups.values() if (g.dto['name'], g.dto['version']) == (name, version)
    ]
    if not found:
        raise Refused(404, 270009, f'no feature group {name} version {version}')
    return found


@route('POST', f'{SHELF}/featuregroups', **EXPAND_GROUP)
def create_group(asked: Asked) -> Any:
    body = asked.body
    only(body, GROUP_FIELDS, 'a feature group')
    unused(
        body,
        (
            'id',
            'expectationSuite',
            'parents',
            'topicName',
            'notificationTopicName',
            'transformationFunctions',
            'ttl',
            'sinkEnabled',
        ),
        'a feature group',
    )
    unused(body.get('dataSource') or {}, tuple(body.get('dataSource') or ()), 'a data source')
    if (
        body['type'] != 'streamFeatureGroupDTO'
        or body['timeTravelFormat'] != 'HUDI'
        or body['featurestoreId'] != STORE
    ):
        raise Refused(
            501, 0, f'only stream groups of HUDI are known, was {body["type"]} of {body["timeTravelFormat"]}'
        )
    for feature in body['features']:
        only(feature, FEATURE_FIELDS, 'a feature')
        if len(feature.get('description') or '') > LONGEST_DESCRIPTION:
            raise Refused(400, 270093, f'the description of {feature["name"]} is too long')
    if len(body.get('description') or '') > LONGEST_DESCRIPTION or not re.fullmatch(
        '[a-z][a-z0-9_]{0,62}', body['name']
    ):
        raise Refused(400, 270093, 'illegal name or description')
    if any(
        (g.dto['name'], g.dto['version']) == (body['name'], body['version'])
        for g in asked.cluster.groups.values()
    ):
        raise Refused(400, 270089, f'feature group {body["name"]} version {body["version"]} already exists')
    types = {f['name']: f['type'] for f in body['features']}
    if body['eventTime'] and types.get(body['eventTime']) not in ('bigint', 'timestamp', 'date'):
        raise Refused(400, 270150, 'the event time must be a timestamp, a date or a bigint')
    number = next(asked.cluster.numbers)
    place = f'hopsfs://namenode:8020/apps/hive/warehouse/{asked.cluster.project}_featurestore.db/{body["name"]}_{body["version"]}'
    asked.cluster.groups[number] = Group(
        number, {k: v for k, v in body.items() if k != 'dataSource'}, asked.cluster.topic, place
    )
    return asked.cluster.groups[number].dto


@route('PUT', f'{SHELF}/featuregroups/(?P<number>\\d+)', updateMetadata={'True', 'true'})
def append_features(asked: Asked, number: str) -> Any:
    for feature in asked.body['features']:
        only(feature, FEATURE_FIELDS, 'a feature')
    group = group_of(asked, number)
    group.append([dict(feature) for feature in asked.body['features']])
    return group.dto


@route('POST', f'{SHELF}/featuregroups/(?P<number>\\d+)/updatetableschema')
def update_table_schema(asked: Asked, number: str) -> Any:
    return job_dto(group_of(asked, number), f'{group_of(asked, number).job}{SCHEMA_JOB}')


@route('DELETE', f'{SHELF}/featuregroups/(?P<number>\\d+)')
def delete_group(asked: Asked, number: str) -> Any:
    asked.cluster.drain()
    del asked.cluster.groups[group_of(asked, number).dto['id']]


@route('GET', f'{SHELF}/kafka/subjects/(?P<name>[a-z0-9_]+)/versions/latest')
def subject(asked: Asked, name: str) -> Any:
    for group in asked.cluster.groups.values():
        if f'{group.dto["name"]}_{group.dto["version"]}' == name:
            return {
                'id': group.dto['id'] + 5000,
                'subject': name,
                'version': 1,
                'schema': json.dumps(group.schema),
            }
    raise Refused(404, 40401, f'no subject {name}')


@route('GET', f'{SHELF}/storageconnectors/kafka_connector/byok', external={'True', 'true'})
def kafka_connector(asked: Asked) -> Any:
    return {
        'type': 'featurestoreKafkaConnectorDTO',
        'id': 1,
        'name': 'kafka_connector',
        'featurestoreId': STORE,
        'storageConnectorType': 'KAFKA',
        'bootstrapServers': asked.cluster.shown_broker,
        'securityProtocol': 'PLAINTEXT',
        'sslEndpointIdentificationAlgorithm': '',
        'externalKafka': True,
        'options': [],
    }


@route('POST', f'{SHELF}/featuregroups/(?P<number>\\d+)/online_ingestion')
def start_ingestion(asked: Asked, number: str) -> Any:
    only(asked.body, {'id', 'numEntries'}, 'an online ingestion')
    group, new = group_of(asked, number), next(asked.cluster.numbers)
    if not group.dto['onlineEnabled']:
        raise Refused(400, 270100, 'the group is not online')
    group.ingestions[new] = {'entries': asked.body['numEntries'], 'seen': 0}
    return {'id': new, 'numEntries': asked.body['numEntries'], 'results': []}


@route('GET', f'{SHELF}/featuregroups/(?P<number>\\d+)/online_ingestion', filter_by=None)
def get_ingestion(asked: Asked, number: str) -> Any:
    asked.cluster.drain()
    wanted = int(asked.query['filter_by'][0].removeprefix('ID:'))
    found = group_of(asked, number).ingestions[wanted]
    done = 0 if asked.cluster.hold_online else found['seen']
    return {
        'count': 1,
        'items': [
            {
                'id': wanted,
                'numEntries': found['entries'],
                'results': [{'onlineIngestionId': wanted, 'status': 'UPSERTED', 'rows': done}],
            }
        ],
    }


# --- jobs


SCHEMA_JOB = '_update_table_schema'  # ends what the name of such a job ends with; the double has none running


def job_of(asked: Asked, name: str) -> Group:
    for group in asked.cluster.groups.values():
        if group.job == name:
            return group
    raise Refused(404, 130009, f'no job {name}')


@route('GET', f'{HERE}/jobs/(?P<name>[a-z0-9_]+)', expand={'creator'})
def get_job(asked: Asked, name: str) -> Any:
    return job_dto(job_of(asked, name), name)


def job_dto(group: Group, name: str) -> Any:
    return {
        'id': group.dto['id'] + 9000,
        'name': name,
        'creationTime': '2026-01-01T00:00:00Z',
        'jobType': 'SPARK',
        'config': {
            'type': 'sparkJobConfiguration',
            'defaultArgs': f'-op offline_fg_materialization -path hdfs:///{name}.json',
        },
        'creator': {'email': 'double@double.invalid'},
    }


@route('POST', f'{HERE}/jobs/(?P<name>[a-z0-9_]+)/executions')
def start_job(asked: Asked, name: str) -> Any:
    return asked.cluster.run_job(job_of(asked, name).job)


@route('GET', f'{HERE}/jobs/(?P<name>[a-z0-9_]+)/executions', limit={'1'}, sort_by={'submissiontime:desc'})
def last_job(asked: Asked, name: str) -> Any:
    if name.endswith(SCHEMA_JOB):
        return {'count': 0}
    done = asked.cluster.executions.get(job_of(asked, name).job, [])
    return {'count': len(done), 'items': done[-1:]} if done else {'count': 0}


@route('GET', f'{HERE}/jobs/(?P<name>[a-z0-9_]+)/executions/(?P<number>\\d+)')
def one_execution(asked: Asked, name: str, number: str) -> Any:
    return next(e for e in asked.cluster.executions[job_of(asked, name).job] if e['id'] == int(number))


# --- queries and views


def check_query(asked: Asked, query: Mapping[str, Any], joined: bool) -> Group:
    "Return the left group of a query that the double can answer."
    only(query, QUERY_FIELDS, 'a query')
    unused(
        query,
        ('leftFeatureGroupStartTime', 'leftFeatureGroupEndTime', 'limit') + (() if joined else ('joins',)),
        'a query',
    )
    group = group_of(asked, query['leftFeatureGroup']['id'])
    if extra := {f['name'] for f in query['leftFeatures']} - set(group.types):
        raise Refused(400, 270055, f'{group.dto["name"]} has no features {sorted(extra)}')
    return group


@route('PUT', f'{HERE}/featurestores/query', hqs={'True', 'true'})
def construct_query(asked: Asked) -> Any:
    group = check_query(asked, asked.body, False)
    payload = json.dumps(
        {
            'group': group.dto['id'],
            'names': [f['name'] for f in asked.body['leftFeatures']],
            'filter': asked.body['filter'],
        }
    )
    return {
        'query': 'SELECT 1',
        'onDemandFeatureGroups': [],
        'hudiCachedFeatureGroups': [],
        'hqsPayload': payload,
        'hqsPayloadSignature': asked.cluster.sign(payload),
    }


def sides(view: Mapping[str, Any]) -> list[tuple[int, str, Mapping[str, Any], list[str]]]:
    "Return join index, prefix, query and join keys of each side of a view."
    joins = [
        (n, join.get('prefix') or '', join['query'], [f['name'] for f in join['on']])
        for n, join in enumerate(view['query']['joins'], 1)
    ]
    return [(0, '', view['query'], []), *joins]


@route('POST', f'{SHELF}/featureview')
def create_view(asked: Asked) -> Any:
    body = dict(asked.body)
    only(body, VIEW_FIELDS, 'a feature view')
    unused(body, ('loggingEnabled', 'transformationFunctions', 'extraLogColumns'), 'a feature view')
    if (body['name'], body['version']) in asked.cluster.views:
        raise Refused(400, 270179, f'feature view {body["name"]} version {body["version"]} already exists')
    if len(body.get('description') or '') > LONGEST_DESCRIPTION:
        raise Refused(400, 270093, 'the description is too long')
    labels, features, keys = {f['name'] for f in body['features']}, [], []
    for index, prefix, query, on in sides(body):
        if index:
            only(
                body['query']['joins'][index - 1],
                {'query', 'on', 'leftOn', 'rightOn', 'type', 'prefix'},
                'a join',
            )
        group = check_query(asked, query, not index)
        if not group.dto['onlineEnabled']:
            raise Refused(501, 0, 'views of offline groups')
        for feature in query['leftFeatures']:
            label = not prefix and feature['name'] in labels
            features.append(
                {
                    'name': prefix + feature['name'],
                    'type': group.types[feature['name']],
                    'index': len(features),
                    'label': label,
                    'featureGroupFeatureName': feature['name'],
                    'featuregroup': group.dto,
                }
            )
        for name in group.key:
            keys.append(
                {
                    'featureName': name,
                    'prefix': prefix,
                    'required': name not in on,
                    'joinOn': name if name in on else None,
                    'joinIndex': index,
                    'featureGroup': group.dto,
                }
            )
    view = {
        **body,
        'id': next(asked.cluster.numbers),
        'featurestoreName': f'{asked.cluster.project}_featurestore',
        'features': features,
        'servingKeys': keys,
    }
    asked.cluster.views[body['name'], body['version']] = view
    return view


def view_of(asked: Asked, name: str, version: str | int) -> dict[str, Any]:
    if (name, int(version)) not in asked.cluster.views:
        raise Refused(404, 270181, f'no feature view {name} version {version}')
    return asked.cluster.views[name, int(version)]


@route('GET', f'{SHELF}/featureview/(?P<name>[a-z0-9_]+)/version/(?P<version>\\d+)', **EXPAND_VIEW)
def get_view(asked: Asked, name: str, version: str) -> Any:
    return view_of(asked, name, version)


@route('DELETE', f'{SHELF}/featureview/(?P<name>[a-z0-9_]+)/version/(?P<version>\\d+)')
def delete_view(asked: Asked, name: str, version: str) -> Any:
    view_of(asked, name, version)
    del asked.cluster.views[name, int(version)]


@route(
    'GET',
    f'{SHELF}/featureview/(?P<name>[a-z0-9_]+)/version/(?P<version>\\d+)/provenance/links',
    expand={'provenance_artifacts'},
    upstreamLvls={'1'},
    downstreamLvls={'0'},
)
def parents(asked: Asked, name: str, version: str) -> Any:
    numbers = dict.fromkeys(
        query['leftFeatureGroup']['id'] for _, _, query, _ in sides(view_of(asked, name, version))
    )
    nodes = [
        {
            'node': {
                'artifact_type': 'FEATURE_GROUP',
                'accessible': True,
                'deleted': False,
                'artifact': group_of(asked, n).dto,
            }
        }
        for n in numbers
    ]
    return {'upstream': nodes, 'downstream': []}


# --- the online store's REST


@route('GET', '/0.1.0/ping')
def ping(asked: Asked) -> Any:
    return None


def vector(asked: Asked, view: Mapping[str, Any], entries: Mapping[str, Any]) -> tuple[list[Any], str]:
    "Return the newest row of each side, and whether it is complete."
    values: list[Any] = []
    status = 'COMPLETE'
    labels = {f['name'] for f in view['features'] if f['label']}
    for _, prefix, query, on in sides(view):
        group = group_of(asked, query['leftFeatureGroup']['id'])
        key = tuple(entries.get(name if name in on else prefix + name) for name in group.key)
        row = group.online.get(key)
        if row is None:
            status = 'MISSING'
        known = dict(zip(group.key, key, strict=True))
        values += [
            (row or known).get(f['name']) for f in query['leftFeatures'] if prefix or f['name'] not in labels
        ]
    return values, status


@route('POST', '/0.1.0/feature_store')
def one_vector(asked: Asked) -> Any:
    body = asked.body
    only(
        body,
        {
            'featureStoreName',
            'featureViewName',
            'featureViewVersion',
            'entries',
            'passedFeatures',
            'options',
            'metadataOptions',
        },
        'a vector request',
    )
    unused(body, ('passedFeatures', 'metadataOptions'), 'a vector request')
    if body['featureStoreName'] != asked.cluster.project:
        raise Refused(404, 0, f'no feature store {body["featureStoreName"]}')
    asked.cluster.drain()
    values, status = vector(
        asked, view_of(asked, body['featureViewName'], body['featureViewVersion']), body['entries']
    )
    return {'features': values, 'metadata': None, 'status': status, 'detailedStatus': None}


@route('POST', '/0.1.0/batch_feature_store')
def many_vectors(asked: Asked) -> Any:
    answers = [
        one_vector(asked._replace(body={**asked.body, 'entries': entry, 'passedFeatures': None}))
        for entry in asked.body['entries']
    ]
    return {
        'features': [a['features'] for a in answers],
        'metadata': None,
        'status': [a['status'] for a in answers],
        'detailedStatus': None,
    }
