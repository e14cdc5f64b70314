"""Queries and views over REST, and the online store's vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .cluster import Group, Refused
from .groups import group_of
from .routes import HERE, LONGEST_DESCRIPTION, SHELF, Asked, only, route, unused

EXPAND_VIEW = {'expand': {'query', 'features', 'transformationfunctions', 'mandatorytags'}}
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
